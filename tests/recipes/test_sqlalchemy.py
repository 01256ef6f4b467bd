"""``docs/recipes/sqlalchemy.md``, with SQLite."""

import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import Run
from tests.support.recipes import copied, session

MANY = """
import os
from concurrent.futures import ThreadPoolExecutor

from orders import Base, Order
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///many.db", connect_args={"timeout": 60})
Base.metadata.create_all(engine)

def add(count):
    with Session(engine) as session:
        session.add_all(Order(customer=str(os.getpid())) for _ in range(count))
        session.commit()

with ThreadPoolExecutor(8) as pool:
    list(pool.map(add, [25] * 8))
engine.dispose()
for _ in range(2):
    if os.fork() == 0:
        add(50)
        os._exit(0)
add(50)
for _ in range(2):
    assert os.wait()[1] == 0
with Session(engine) as session:
    found = session.scalars(select(Order)).all()
    print(len(found), len({order.customer for order in found}))
"""
REFUSED = """
from orders import Base, Order
from sqlalchemy import create_engine
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session
from ticketctl.errors import NotMintedError

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Order(customer="Ada"))
    try:
        session.commit()
    except StatementError as error:
        print(isinstance(error.orig, NotMintedError))
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> None:
    copied("sqlalchemy", tmp_path)


def test_the_session(run: Run) -> None:
    """Two databases share the ids, and the program prints what the page shows."""
    command, _, shown = session("sqlalchemy").partition("\n")
    assert run(sys.executable, *command.removeprefix("$ python ").split()) == shown


def test_threads_and_forks(run: Run) -> None:
    """Eight threads, and three processes after a fork, insert rows at the same time: no primary key comes twice."""
    assert run(sys.executable, "-c", MANY) == "350 3\n"


def test_no_number(run: Run) -> None:
    """The flush raises ticketctl's error, wrapped by SQLAlchemy."""
    nowhere = {"TICKETCTL_URL": "http://127.0.0.1:1/", "TICKETCTL_TIMEOUT": "0.2"}
    assert run(sys.executable, "-c", REFUSED, **nowhere) == "True\n"
