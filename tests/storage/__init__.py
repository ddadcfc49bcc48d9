"""The contract of storage.base, held against every driver, and each driver's own corners."""
