"""Cases one after the other, while the next is being read and the last one written.

Threads suffice: reading, resampling, the network and compression all leave Python's lock alone. At any time at most one
case is read ahead, one is computed and one is written, so memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from autocrossdim.system.errors import UserError

Item = TypeVar("Item")
Read = TypeVar("Read")
Result = TypeVar("Result")


def overlapped(
    items: Sequence[Item],
    name: Callable[[Item], str],
    read: Callable[[Item], Read],
    compute: Callable[[Item, Read], Result],
    write: Callable[[Item, Result], None],
) -> Iterator[Item]:
    """Yield each item once it is written: `write(item, compute(item, read(item)))`, the three overlapping.

    `compute` runs in the calling thread, the other two in one of their own. The first failure ends the run, as does
    Ctrl-C: what is being written is finished, nothing new is begun, and no thread is left.

    Args:
        items: in the order in which they are done.
        name: what an error calls an item.
        read: from an item to what is computed with.
        compute: from that to the result.
        write: puts the result where it belongs.

    Raises:
        UserError: from any of the three, with the item's name; or memory ran out. Other exceptions come as they are,
            with a note that says which item it was.
    """

    def reading(item: Item) -> Read:
        with _Named("reading", name(item)):
            return read(item)

    def writing(item: Item, result: Result) -> None:
        with _Named("writing", name(item)):
            write(item, result)

    with ThreadPoolExecutor(1, "reading") as reader, ThreadPoolExecutor(1, "writing") as writer:
        ahead = [reader.submit(reading, items[0])] if items else []
        written: Future[None] | None = None
        for index, item in enumerate(items):
            try:
                case = ahead.pop().result()
                if index + 1 < len(items):
                    ahead.append(reader.submit(reading, items[index + 1]))
                with _Named("predicting", name(item)):
                    result = compute(item, case)
                del case
            finally:
                # Also when this item failed: the one before it is finished first, and its error is the first one.
                if written is not None:
                    written.result()
            if index:
                yield items[index - 1]
            written = writer.submit(writing, item, result)
            del result
        if written is not None:
            written.result()
            yield items[-1]


class _Named:
    """Says in an error what was done to which item."""

    def __init__(self, doing: str, name: str) -> None:
        self.doing, self.name = doing, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UserError):
            if self.name not in str(error):
                raise UserError(f"{self.name}: {error}") from error
        elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_out_of_memory(error)):
            raise UserError(
                f"{self.name}: memory ran out while {self.doing} it. Close other programs, or use a larger machine; "
                "--device cpu takes the GPU's part."
            ) from error
        elif isinstance(error, Exception):
            error.add_note(f"This happened while {self.doing} {self.name}.")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate; on a CPU it has no exception of its own for that."""
    said = ("not enough memory", "can't allocate memory", "bad_alloc")
    return type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in said)
