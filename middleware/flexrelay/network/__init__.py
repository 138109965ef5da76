"""Fabric networks from one description file: material, processes, channels, contracts."""
