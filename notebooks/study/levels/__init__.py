"""Three domains, three levels, one model: which of 27 combinations can one setting reach?"""
