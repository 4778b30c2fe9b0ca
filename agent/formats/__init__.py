"""What goes over the wire: one file per format, no I/O, one object per MQTT session."""
