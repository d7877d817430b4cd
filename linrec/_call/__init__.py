"""The path from `run`, `final` and `step` to an executor, and back."""

from linrec._call.prepared_call import PreparedCall as PreparedCall
from linrec._call.prepared_call import prepare_call as prepare_call
