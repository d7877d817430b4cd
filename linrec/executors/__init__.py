"""The ways to run a recurrence."""

from linrec._tensors.dtypes import accumulation_dtype as accumulation_dtype
from linrec.executors.base import Executor as Executor
from linrec.executors.base import Plan as Plan
from linrec.executors.base import Result as Result
from linrec.executors.chunked import Chunked as Chunked
from linrec.executors.fft import FFTConvolution as FFTConvolution
from linrec.executors.recurrent import Recurrent as Recurrent
from linrec.executors.scan import AssociativeScan as AssociativeScan
from linrec.executors.toeplitz import Toeplitz as Toeplitz
from linrec.executors.workload import Cost as Cost
from linrec.executors.workload import Estimates as Estimates
from linrec.executors.workload import Workload as Workload
