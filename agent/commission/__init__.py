"""What is done before and beside the running agent: check, read, log."""
