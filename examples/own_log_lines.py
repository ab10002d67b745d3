"""Your own log lines inside a run carry its ids, in structlog and in the standard library's logging."""

import logging
import sys

import structlog

from tracebus import subscribe, traced
from tracebus.outputs.logs import RunIdFilter, add_run_ids

structlog.configure(processors=[add_run_ids, structlog.processors.KeyValueRenderer(key_order=["event"])])
log = structlog.get_logger()

handler = logging.StreamHandler(sys.stdout)
handler.addFilter(RunIdFilter())  # on the handler, so that it sees the records of every logger
handler.setFormatter(logging.Formatter("run %(run_id)s of trace %(trace_id)s: %(message)s"))
logging.basicConfig(level=logging.INFO, handlers=[handler])


@traced(kind="retriever")
def search(query: str) -> list[str]:
    logging.info("searching for %r", query)
    return ["a document"]


@traced
def answer(question: str) -> str:
    log.info("answering", question=question)
    return search(question)[0]


subscribe(lambda sender, event: None, "chain_*", "retriever_*")  # a run begins only where somebody listens
logging.info("outside of a run")
answer("How?")
