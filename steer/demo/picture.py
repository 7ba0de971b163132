"""How each level looks in pictures."""

LOOKS = {  # colour, marker, line: told apart without colour and in print
    "avoidance": ("#D55E00", "v", ":"),
    "generic": ("#888888", "o", "--"),
    "expert": ("#0072B2", "^", "-"),
}
