"""Rows of a step up to which one kernel, or one shape of it, is taken, and above which the next:
measured on an H100.
"""

FEW = 2  # products are matrix-vector products, ``few_rows``: one image with guidance
SOME = 64  # products are ours, ``some_rows``; above, and in float32, a library's
SHORT = 64  # slots: AiM's history is short. Rows: where a full window is folded as it is read

# of ``window``
TAKEN_ALONE, TAKEN_IN_TWOS = 64, 128  # a program takes one row, two; then four
RECALLED_ONCE = 128  # a program recalls as many heads with a state as without; then twice as many
A_HEAD_EACH = 8  # a program recalls one head; then several
WIDE_PROGRAMS = 64  # those have four warps and three stages; then two of each

# rows times heads: of ``window_fold`` and of attention
FEW_FOLDED = 2048  # a program folds one head of four layers; then four heads of all
READ_AT_ONCE = 128  # a program reads the whole cache at once; then little by little
