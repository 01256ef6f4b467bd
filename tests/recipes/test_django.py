"""``docs/recipes/django.md``, with SQLite."""

import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import Run
from tests.support.recipes import copied, page

SETTINGS = """
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db", "OPTIONS": {"timeout": 60}}}
"""
PREFORK = """
import os
import django
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

django.setup()
from shop.models import Order

with CaptureQueriesContext(connection) as queries:
    order = Order(customer="Ada")
    assert order.id == 1
    order.save()
assert [query["sql"].partition(" ")[0] for query in queries] == ["INSERT"]
Order.objects.bulk_create(Order(customer=name) for name in ("Grace", "Edsger"))
print(*Order.objects.order_by("id").values_list("id", "customer"))

connections.close_all()  # as a server does before it forks
for _ in range(3):
    if os.fork() == 0:
        for _ in range(20):
            Order.objects.create(customer=str(os.getpid()))
        os._exit(0)
for _ in range(3):
    assert os.wait()[1] == 0
Order.objects.create(customer="parent")
print(Order.objects.count(), Order.objects.values("customer").distinct().count())
print(Order.objects.get(customer="parent").id)
"""


def test_django(run: Run, tmp_path: Path) -> None:
    """The migration needs no AWS; ids are there before the row is; workers forked from a server share none."""
    copied("django", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "settings.py").write_text(SETTINGS, encoding="utf-8")
    django = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(tmp_path)}
    offline = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    for command in ("makemigrations shop", "migrate"):
        assert f"python manage.py {command}`" in page("django")
        run(sys.executable, "-m", "django", *command.split(), **django, **offline)
    (migration,) = (tmp_path / "shop" / "migrations").glob("0001*.py")
    assert "shop.models.next_order_id" in migration.read_text(encoding="utf-8")
    told = run(sys.executable, "-c", PREFORK, **django)
    assert told == "(1, 'Ada') (2, 'Grace') (3, 'Edsger')\n64 7\n4\n"


def test_the_settings_of_tests(run: Run, tmp_path: Path, environ: dict[str, str], caller: dict[str, str]) -> None:
    """With TICKETCTL_LOCAL=1 the same models get their ids from the embedded AWS, without credentials."""
    copied("django", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "settings.py").write_text(SETTINGS, encoding="utf-8")
    assert caller
    local = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(tmp_path), "TICKETCTL_LOCAL": "1"}
    nobody = {name: "" for name in caller if name.startswith("AWS_") and name not in environ}
    program = "import django; django.setup(); from shop.models import Order; print(Order(customer='Ada').id)"
    assert run(sys.executable, "-c", program, **local, **nobody) == "1\n"


@pytest.fixture(autouse=True)
def shows_what_it_runs() -> None:
    """The lines under the model, which ``PREFORK`` runs, are those of the page."""
    for line in ('order = Order(customer="Ada")', 'Order(customer=name) for name in ("Grace", "Edsger")'):
        assert line in page("django")
