"""Symbolic music: scores, tokens, a small decoder with shared key-value heads, its training and its measured quality.

``corpus`` reads scores, ``tokens`` turns them into tokens that know their attribute, ``groupings`` names the head maps, ``model``
is the decoder, ``training`` trains and scores it, ``continuation`` lets it play on, ``similarity`` compares music.
Needs the extra ``music`` (miditok, symusic, music21) and torch; both are imported where they are used.
"""
