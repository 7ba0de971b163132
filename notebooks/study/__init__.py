"""What the papers on steering claim, measured on a real model; docs/study/protocol.md has the rules."""
