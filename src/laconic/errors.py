"""The errors a user can cause, each with its remedy.

Everything a user may get wrong (a missing file, an impossible factor, an adapter for another backbone) raises a
``LaconicError``: the command line prints it as one line and leaves with status 2. A broken invariant of our own is an
``assert`` and keeps its traceback.
"""


class LaconicError(ValueError):
    """A problem the user can mend.

    Args:
        problem: what is wrong, naming the value or the file.
        remedy: what to do about it; printed after the problem.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())


class BackboneError(LaconicError):
    """Weights are missing or damaged, or the architecture is not a supported decoder."""


class AdapterError(LaconicError):
    """A saved method is missing, damaged, or made for another backbone."""


class MemoryFileError(LaconicError):
    """A memory file that is missing, damaged, or of another model."""


class DocumentError(LaconicError):
    """A document cannot be read: missing, empty, binary, scanned, encrypted."""


class BudgetError(LaconicError):
    """A ratio, factor or budget that cannot be delivered."""


class QuestionError(LaconicError):
    """An empty question, or one longer than the model can take."""


class DataError(LaconicError):
    """A data folder, file or record is missing or malformed."""


class RecipeError(LaconicError):
    """A recipe file that is missing, malformed or asks for something impossible."""


class RewardError(LaconicError):
    """A reward that raises, hangs, or is no number."""


class TeacherError(LaconicError):
    """A teacher that cannot be asked, or has no score for what was said."""
