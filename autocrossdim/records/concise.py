"""How a notebook or a Python prompt shows a record: in one line, instead of all of its fields."""


class Concise:
    """A record whose `__str__` is one line."""

    def __str__(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"
