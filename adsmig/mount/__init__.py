"""An object store as a directory of this machine."""
