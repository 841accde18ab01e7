"""The payloads of `pilotkit demo`: generate Z → μμ events, then fit their mass.

This folder is shipped to the jobs as a sandbox and run there by the interpreter of the demo
(`python -m payloads.generate`), so it imports nothing of pilotkit, only numpy, uproot, iminuit and matplotlib.
"""
