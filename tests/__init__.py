"""The tests mirror the package; shared fixtures stand in conftest.py."""
