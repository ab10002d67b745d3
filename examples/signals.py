"""Every hook is a signal: connect functions to it, filtered by sender or by pattern, and disconnect them again."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tracebus import Event, Usage, chain_end, current_run, llm_end, llm_new_token, subscribe, traced


@traced(kind="llm")
def cheap(prompt: str) -> Iterator[str]:
    yield from ("Yes", ".")
    if run := current_run():  # None when nothing listens
        run.model, run.usage = "small-1", Usage(input_tokens=12, output_tokens=2)


@traced(kind="llm")
def dear(prompt: str) -> Iterator[str]:
    yield from ("On ", "reflection", ", ", "no", ".")
    if run := current_run():
        run.model, run.usage = "large-1", Usage(input_tokens=12, output_tokens=5)


@traced
def ask_both(question: str) -> list[str]:
    return ["".join(cheap(question)), "".join(dear(question))]


# A receiver is called as receiver(sender, event=event). The sender is the traced function.
@llm_new_token.connect
def show(sender: Any, event: Any) -> None:
    print(f"{event.run.name} said {event.token!r}, its token {event.index}")


# sender= hears the runs of that function alone. So only the dear model goes on the bill.
def bill(sender: Any, event: Any) -> None:
    print(f"the bill: {event.usage.total_tokens} tokens of {event.run.model}")


llm_end.connect(bill, sender=dear)

# subscribe() connects one function to many hooks: names, signals, patterns; all of them when none is given.
heard: Counter[str] = Counter()


def count(sender: Any, event: Event) -> None:
    heard[event.signal_name] += 1


with subscribe(count, "llm_*", chain_end) as subscription:
    ask_both("Is it worth it?")

print(dict(heard))
print(subscription.stats)

# After the block its subscription is closed. What was connected hears no more once it is disconnected.
llm_new_token.disconnect(show)
llm_end.disconnect(bill, sender=dear)
ask_both("And now?")
print(f"closed: {subscription.closed}, chains heard: {heard['chain_end']}")
