"""Every error that `steer` raises on purpose.

Recorded pairs that are valid but rarely intended give a `DataWarning`, not an error.

A message always says what is wrong, what was found, what was expected and what to do, in at most
4096 bytes of UTF-8.
"""

_MOST = 4096  # bytes of a message
_CUT = " … {} bytes left out … "


class SteerError(Exception):
    """Base of all errors of this library.

    The message is valid Unicode of at most 4096 bytes: lone surrogates are escaped, and the
    longest parts are cut in the middle. The attributes keep all four parts in full.

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
    """A vector made from these pairs may not steer the behaviour they are meant for."""


class ArgumentError(SteerError, ValueError):
    """An argument has the wrong type, is outside its bounds, or is not one of the options."""


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
    """No choice is possible from these candidates with these data."""


class CompositionError(SteerError, ValueError):
    """Domains, coefficients, operators or gates are not compatible."""


class FitError(SteerError, ValueError):
    """A vector does not fit the model it is applied to."""


class SteeringError(SteerError, RuntimeError):
    """A model call inside ``steered()`` cannot be steered as asked."""


class RowsError(SteeringError, ValueError):
    """The number of coefficient rows differs from the number of prompts."""


class ScopeError(SteeringError, ValueError):
    """The scope needs to know where the prompt ends, and this call does not say."""


class CapabilityError(SteerError, NotImplementedError):
    """This engine, architecture or file format does not support the request."""


class BusyModelError(SteerError, RuntimeError):
    """Another thread is steering this model."""


class CheckpointError(SteerError, ValueError):
    """Weights on disk cannot be read, or do not belong to a model."""


class AlignmentError(SteerError, ValueError):
    """The difference between two models, or between a model and an adapter, cannot be computed."""


class MergeError(SteerError, RuntimeError):
    """A setting cannot be merged into the weights, or cannot be removed from them."""


class JudgeError(SteerError, RuntimeError):
    """A judge cannot be reached, or gives no verdict on an answer."""


class HarnessError(SteerError, ValueError):
    """A task of an evaluation harness cannot be run as asked."""


class MissingExtraError(SteerError, ImportError):
    """An optional package is not installed."""
