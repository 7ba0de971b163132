"""Many settings over one text: rows that all settings share run once, the others per setting."""
