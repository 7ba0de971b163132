"""Many settings over one text: what no setting changes is computed once, the rest as rows."""
