"""Decoding ahead: threads bring the next images to a model's form while it computes."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from tuner.data.decoding import Form, Undecodable, quiet
from tuner.deploy.images import Decoded, decoded
from tuner.deploy.listing import Item

_CHUNK = 16
"""Most images that a thread decodes before it asks for more."""


def decoded_ahead(
    items: Iterable[Item], form: Form, *, threads: int, ahead: int
) -> Generator[tuple[Item, Decoded | Undecodable]]:
    """Decode images by threads, in their order.

    Pillow decodes and resizes without holding the interpreter's lock.

    Args:
        items: The images.
        form: The form to which they are brought.
        threads: Number of threads.
        ahead: How many images may be decoded before they are asked for, so that memory stays flat.

    Returns:
        The images, or why they cannot be read.
    """

    def run(chunk: list[Item]) -> list[tuple[Item, Decoded | Undecodable]]:
        return [(item, _tried(item, form)) for item in chunk]

    size = max(1, min(_CHUNK, ahead // threads))
    rest = iter(items)
    pending: deque[Future[list[tuple[Item, Decoded | Undecodable]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    with quiet():
        try:
            while True:
                while len(pending) * size < ahead and (chunk := list(islice(rest, size))):
                    pending.append(pool.submit(run, chunk))
                if not pending:
                    return
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _tried(item: Item, form: Form) -> Decoded | Undecodable:
    try:
        return decoded(item, form)
    except Undecodable as error:
        return error
    except MemoryError:
        return Undecodable("there is too little memory to decode it")
