"""The adapters that come with flexrelay."""
