"""A LangChain app, traced without a change: prompt | model | parser behind a retriever and a tool, called in three ways."""

import asyncio
from collections.abc import Iterator

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool

from tracebus import log_to_stdout, scope, traced
from tracebus.integrations.langchain import install

install()  # this line is all that tracing takes
log_to_stdout()

NOTES = ["Signals are heard by functions.", "A run is one call.", "Tokens come one by one."]


class Notes(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        words = set(query.lower().rstrip("?").split())
        return [Document(note) for note in NOTES if words & set(note.lower().rstrip(".").split())]


@tool
def spell(word: str) -> str:
    """Spell a word."""
    return "-".join(word.upper())


@traced
def shorten(answer: str) -> str:
    return answer.removesuffix(" That is all.")  # a function of your own, in the tree where it is called


def answers() -> Iterator[AIMessage]:
    while True:
        yield AIMessage("One call is a run. That is all.", usage_metadata=USAGE)


USAGE = {"input_tokens": 24, "output_tokens": 9, "total_tokens": 33}

model = GenericFakeChatModel(messages=answers())  # stands for any chat model
prompt = ChatPromptTemplate.from_messages([("system", "Answer from {notes}."), ("user", "{question}")])
chain = {"notes": Notes(), "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
question = "What is a run?"


async def main() -> None:
    with scope(user_id="u-1", session_id="s-1"):
        print(await (chain | RunnableLambda(shorten)).ainvoke(question), "\n")
    async for piece in chain.astream(question):
        print(end=f"[{piece}]")
    print("\n")


print(chain.invoke(question), "\n")
print(spell.invoke("run"), "\n")
for _ in chain.stream(question):
    break  # what is left of the stream is not read: its runs were closed early
print()
asyncio.run(main())
