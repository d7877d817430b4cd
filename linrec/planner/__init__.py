"""The cost model, the executor that chooses by it, and the table that explains the choice."""

from linrec.planner.auto import Auto as Auto
from linrec.planner.auto import explain as explain
from linrec.planner.costs import estimates_of as estimates_of
from linrec.planner.explain import Explanation as Explanation
from linrec.planner.explain import Row as Row
from linrec.planner.rates import CPU as CPU
from linrec.planner.rates import Rates as Rates
from linrec.planner.selection import CANDIDATES as CANDIDATES
