"""The tests of adsmig: see conftest.py for what they share."""
