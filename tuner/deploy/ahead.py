"""Decoding ahead: threads bring the next images to a model's form while it computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count, groupby, islice

from tuner.data.decoding import Form, Undecodable, quiet
from tuner.deploy.film import Film
from tuner.deploy.images import Decoded, decoded
from tuner.deploy.listing import Item

_CHUNK = 16
"""Most images that a thread decodes before it asks for more."""

_Some = list[tuple[Item, Decoded | Undecodable]]


def decoded_ahead(
    items: Iterable[Item], form: Form, *, threads: int, ahead: int, every: int = 1
) -> Generator[tuple[Item, Decoded | Undecodable]]:
    """Decode images by threads, in their order, and of videos the frames.

    Pillow decodes and resizes without holding the interpreter's lock, and so does PyAV.

    Args:
        items: The images.
        form: The form to which they are brought.
        threads: Number of threads.
        ahead: How many images may be decoded before they are asked for, so that memory stays flat.
        every: Of a video, every so many frames one is read; 1 for all.

    Returns:
        The images, or why they cannot be read.
    """
    size = max(1, min(_CHUNK, ahead // threads))
    pending: deque[Future[_Some]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    with closing(_work(items, form, size, every, threads)) as work, quiet():
        try:
            while True:
                while len(pending) * size < ahead and (part := next(work, None)):
                    pending.append(pool.submit(part))
                if not pending:
                    return
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _work(items: Iterable[Item], form: Form, size: int, every: int, threads: int) -> Generator[Callable[[], _Some]]:
    """What the threads have to do: the next few images, or the next part of a video."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        for is_video, some in groupby(chunk, lambda item: item.is_video):
            if not is_video:
                yield partial(_all, list(some), form)
                continue
            for item in some:
                yield from _parts(Film(item, form, every, threads))


def _parts(film: Film) -> Iterator[Callable[[], _Some]]:
    """The parts of a video. How many there are is known once the last is read: some that are asked for are empty."""
    with closing(film):
        for number in count():
            if film.ended:
                return
            yield partial(film.part, number)


def _all(items: list[Item], form: Form) -> _Some:
    return [(item, _tried(item, form)) for item in items]


def _tried(item: Item, form: Form) -> Decoded | Undecodable:
    try:
        return decoded(item, form)
    except Undecodable as error:
        return error
    except MemoryError:
        return Undecodable("there is too little memory to decode it")
