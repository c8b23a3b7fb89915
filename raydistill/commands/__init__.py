"""The commands, each one Python call: what a notebook, a Ray job and the command line use."""
