"""What the C library does with memory that torch no longer needs."""

import ctypes


def keep_freed_memory() -> None:
    """Let the C library keep the memory that torch frees, instead of giving it back each time.

    By default glibc returns every large block to the system, which clears it again page by page
    at the next allocation; for a CNN on a CPU that can take longer than the arithmetic. With any
    other C library, nothing happens.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # constants of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    if not mallopt(mmap_threshold, 2**31 - 1):  # older versions take 32 MB at most
        mallopt(mmap_threshold, 2**25)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)
