"""Figures on Hyperledger Fabric: our shim and client beside the official ones in Go, on one native network.

Every measurement founds a network on loopback in a temporary folder and removes it. Figures are ratios of runs that
alternate on the same network: other work on the machine slows both.
"""
