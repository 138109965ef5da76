"""The demo: one true story on real input, from devices' readings to a settled market (`flexrelay demo`)."""
