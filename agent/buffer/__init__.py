"""Keeps messages until the broker has them: outbox (memory, order, counts) and store (SQLite)."""
