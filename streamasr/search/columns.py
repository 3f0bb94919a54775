"""Columns of the beam's arrays: what is compiled and what is not know of each other.

An alignment says which steps a prefix's tokens took. Of those that end in the blank (B) and in the last
token (N) the likeliest is kept: its path in the arena up to the last token but one, and the last token's
first step (-1: there is none since the last word), last step and highest log-probability.
"""

# ints [beam, INTS]
KEY = 0  # of the prefix; two hypotheses never have the same
NODE = 1  # of the lexicon, then of the side tree; 0: between words. Open vocabulary: 1 within a word
LABEL = 2  # the last token of the prefix
LM = 3  # state of the language model
HOT = 4  # state of the hotwords
ENDED = 5  # word that the last token ended, where no separator does; else NONE
ORDINAL = 6  # words ended since the commit
WORDS_KEY = 7  # of those words
PATH_B, FIRST_B, LAST_B = 8, 9, 10
PATH_N, FIRST_N, LAST_N = 11, 12, 13
INTS = 14

# floats [beam, FLOATS], natural logarithms
BLANK = 0  # all alignments that end in the blank
TOKEN = 1  # all that end in the last token
SCORE = 2  # language model, bonus, hotwords
BEST_B, PEAK_B = 3, 4  # BEST: below the likeliest token of every step
BEST_N, PEAK_N = 5, 6
FLOATS = 7

# Further columns of a candidate's ints: where it came from.
FROM_OWN = INTS  # the hypothesis of the same prefix, -1: a new prefix
FROM_B = INTS + 1  # its alignment that the one ending in the blank goes on from: 0 B, 1 N
FROM_SOURCE = INTS + 2  # the one ending in the token: one of those below
FROM_WORD = INTS + 3  # what the parent's last token ended
FROM_WORDS_KEY = INTS + 4
STAY, REPEAT, NEW = 0, 1, 2  # NEW + 2 * parent + alignment (0 B, 1 N)

# arena [entries, ENTRIES], beside keys (of the words up to here) and values [entries, VALUES]: the token's
# highest log-probability, and BEST when the next one began
ENTRY_PARENT, ENTRY_TOKEN, ENTRY_WORD, ENTRY_ORDINAL, ENTRY_FIRST, ENTRY_LAST = range(6)
ENTRIES = 6
VALUE_PEAK, VALUE_PATH = range(2)
VALUES = 2

# weights (float64) and limits (int64) of a search
LM_WEIGHT, WORD_BONUS, BEAM_THRESHOLD, TOKEN_THRESHOLD, BLANK_SKIP, UNKNOWN, MOST_GAIN = range(7)
BEAM, TOKENS, SEPARATOR, RECOMBINE = range(4)

# Words that are not numbers of the lexicon's.
NONE = -1  # no word ends
OPEN = -2  # one that is as it is spelt
