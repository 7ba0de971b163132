"""Every error that `steer` raises on purpose.

What may be meant but rarely is, in the pairs that are recorded, is a `DataWarning`, no error.

A message always says what is wrong, what was found, what was expected and what to do, in at most
4096 bytes of UTF-8.
"""

_MOST = 4096  # bytes of a message
_CUT = " … {} bytes left out … "


class SteerError(Exception):
    """Base of all errors of this library.

    The message is valid Unicode of at most 4096 bytes: half surrogates are escaped, and the longest
    parts lose their middle. The attributes keep what was given.

    Args:
        what: What is wrong, one clause.
        found: What was found.
        expected: What was expected instead.
        do: What the reader can do about it.
    """

    def __init__(self, what: str, *, found: object, expected: object, do: str) -> None:
        self.what = what
        self.found = found
        self.expected = expected
        self.do = do
        parts = _bounded([what, str(found), str(expected), do])
        super().__init__("{}\n  found:    {}\n  expected: {}\n  to do:    {}".format(*parts))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, str(self.found), str(self.expected), self.do))


def _rebuild(kind: type[SteerError], what: str, found: str, expected: str, do: str) -> SteerError:
    return kind(what, found=found, expected=expected, do=do)


def _bounded(parts: list[str]) -> list[str]:
    """Return texts as valid Unicode, cut so that a message of them keeps within its size."""
    encoded = [part.encode("utf-8", "backslashreplace") for part in parts]
    left = _MOST - 64  # for the words between
    shares = {}
    for n, k in enumerate(sorted(range(len(parts)), key=lambda k: len(encoded[k]))):
        shares[k] = min(len(encoded[k]), left // (len(parts) - n))
        left -= shares[k]
    return [_shortened(data, shares[k]) for k, data in enumerate(encoded)]


def _shortened(data: bytes, most: int) -> str:
    """Return a text of at most so many bytes, without the middle that is too much."""
    if len(data) <= most:
        return data.decode()
    kept = (most - len(_CUT.format(len(data)).encode())) // 2
    begin, end = data[:kept].decode(errors="ignore"), data[-kept:].decode(errors="ignore")
    return begin + _CUT.format(len(data) - 2 * kept) + end


class DataWarning(UserWarning):
    """The pairs look as if no vector made of them would steer the behaviour they are meant for."""


class ArgumentError(SteerError, ValueError):
    """An argument is of the wrong kind, outside its bounds, or none of the options."""


class PairsError(SteerError, ValueError):
    """A file or data set of preference pairs cannot be used as it is."""


class AlgebraError(SteerError, ValueError):
    """Two terms or vectors cannot be combined."""


class VectorFileError(SteerError, ValueError):
    """A vector file is damaged, foreign, from a future version, or holds invalid values."""


class FileError(SteerError, OSError):
    """A report, a picture or another result cannot be written to a file."""


class ArchitectureError(SteerError, ValueError):
    """The decoder blocks, final norm or unembedding of a model were not found or not verified."""


class TextError(SteerError, ValueError):
    """A prompt, a chat template or a token sequence cannot be used."""


class RecordingError(SteerError, ValueError):
    """Activations cannot be recorded as asked."""


class SelectionError(SteerError, ValueError):
    """Nothing can be chosen from these candidates on these data."""


class CompositionError(SteerError, ValueError):
    """Domains, coefficients, operators or gates do not go together."""


class FitError(SteerError, ValueError):
    """A vector does not fit the model it is applied to."""


class SteeringError(SteerError, RuntimeError):
    """A model call inside ``steered()`` cannot be steered as asked."""


class RowsError(SteeringError, ValueError):
    """The number of coefficient rows differs from the number of prompts."""


class ScopeError(SteeringError, ValueError):
    """The scope needs to know where the prompt ends, and this call does not say."""


class CapabilityError(SteerError, NotImplementedError):
    """This engine, architecture or file format cannot do what was asked."""


class BusyModelError(SteerError, RuntimeError):
    """Another thread is steering this model."""


class CheckpointError(SteerError, ValueError):
    """Weights on disk that cannot be read, or are not those of a model."""


class AlignmentError(SteerError, ValueError):
    """Two models, or a model and an adapter, whose difference cannot be taken."""


class MergeError(SteerError, RuntimeError):
    """A setting that cannot be merged into the weights, or not taken out again."""


class JudgeError(SteerError, RuntimeError):
    """A judge that cannot be reached, or does not judge."""


class HarnessError(SteerError, ValueError):
    """A task of an evaluation harness cannot be run as asked."""


class MissingExtraError(SteerError, ImportError):
    """An optional package is not installed."""
