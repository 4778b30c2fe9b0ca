"""The Shopfloor Agent: runs collectors, keeps and sends what they bring."""

__version__ = "0.1.0"
