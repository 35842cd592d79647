"""What the environment says is understood, or refused by name."""

import pytest

from functions.frontend.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_defaults():
    """Nothing has to be set where the tiers run side by side in containers."""
    settings = Settings.from_env({})
    assert settings == Settings("http://backend:8082", 300.0, 5.0)


def test_values_are_read():
    """Each variable reaches its field; a slash at the end of the address would be doubled in every request."""
    environ = {"BACKEND_URL": "https://api.example/v/", "BACKEND_TIMEOUT_S": "7.5", "BACKEND_CONNECT_TIMEOUT_S": "2"}
    assert Settings.from_env(environ) == Settings("https://api.example/v", 7.5, 2.0)
    scraped = Settings.from_env({"METRICS_PORT": "9108", "METRICS_HOST": "127.0.0.1"})
    assert (scraped.metrics_port, scraped.metrics_host) == (9108, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKEND_URL", ""),
        ("BACKEND_URL", "backend:8082"),
        ("BACKEND_URL", "ftp://backend"),
        ("BACKEND_URL", "http://"),
        ("BACKEND_URL", "http://backend:port"),
        ("BACKEND_URL", "http://back end"),
        ("BACKEND_URL", "http://backend/?a=b"),
        ("BACKEND_URL", "http://me:secret@backend"),
        ("BACKEND_TIMEOUT_S", "soon"),
        ("BACKEND_TIMEOUT_S", "0"),
        ("BACKEND_TIMEOUT_S", "nan"),
        ("BACKEND_CONNECT_TIMEOUT_S", "-1"),
        ("BACKEND_CONNECT_TIMEOUT_S", "inf"),
        ("BACKEND_ULR", "http://backend"),
        ("METRICS_PORT", "65536"),
        ("METRICS_PORT", "-1"),
        ("METRICS_HOST", " "),
    ],
)
def test_what_is_not_understood_is_named(name, value):
    """A wrong value, and a wrong name that looks like one of ours, stop the start and are named."""
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: value})


def test_on_lambda_there_is_no_status_view():
    """An instance there knows of itself alone. The variable is Lambda's own."""
    assert Settings.from_env({}).status_view
    assert not Settings.from_env({"AWS_LAMBDA_FUNCTION_NAME": "huginn-frontend"}).status_view


SECRETS = f"{'a' * 32},{'b' * 40}"


def test_sessions_have_one_or_two_secrets():
    """Where everybody may ask, there is nobody to be told apart; an empty variable is none."""
    settings = Settings.from_env(
        {"SESSION_SECRET": SECRETS, "PAGE_PASSWORD": "nevermore-nevermore", "COOKIE_SECURE": "on"}
    )
    assert settings.session_secrets == ("a" * 32, "b" * 40)
    assert (settings.page_password, settings.cookie_secure) == ("nevermore-nevermore", True)
    off = {"HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1", "SESSION_SECRET": SECRETS}
    assert Settings.from_env(off).session_secrets == ()
    empty = dict.fromkeys(("HUGINN_AUTH", "SESSION_SECRET", "PAGE_PASSWORD", "COOKIE_SECURE"), "")
    assert Settings.from_env(empty) == Settings()


@pytest.mark.parametrize(
    ("name", "environ"),
    [
        ("HUGINN_AUTH", {"HUGINN_AUTH": "no"}),
        ("HUGINN_AUTH", {"HUGINN_AUTH": "off"}),
        ("HUGINN_AUTH", {"HUGINN_AUTH": "off", "HUGINN_HOST": "0.0.0.0"}),
        ("SESSION_SECRET", {"HUGINN_AUTH": "on"}),
        ("SESSION_SECRET", {"SESSION_SECRET": "hunter2"}),
        ("SESSION_SECRET", {"SESSION_SECRET": f"{'a' * 32},"}),
        ("SESSION_SECRET", {"SESSION_SECRET": ",".join(["a" * 32] * 3)}),
        ("PAGE_PASSWORD", {"PAGE_PASSWORD": "elevenchars", "SESSION_SECRET": "a" * 32}),
        ("PAGE_PASSWORD", {"PAGE_PASSWORD": "nevermore-nevermore"}),
        ("PAGE_PASSWORD", {"PAGE_PASSWORD": "nevermore-nevermore", "HUGINN_AUTH": "off", "HUGINN_HOST": "localhost"}),
        ("COOKIE_SECURE", {"COOKIE_SECURE": "yes"}),
    ],
)
def test_a_door_that_would_not_close_stops_the_start(name, environ):
    """The variable is named, and no secret is told."""
    with pytest.raises(SettingsError, match=name) as refused:
        Settings.from_env(environ)
    for secret in ("hunter2", "nevermore-nevermore", "elevenchars", "a" * 32):
        assert secret not in str(refused.value)


def test_secrets_are_not_shown():
    """What is shown ends in a log."""
    assert "a" * 32 not in repr(Settings.from_env({"SESSION_SECRET": SECRETS, "PAGE_PASSWORD": "nevermore-nevermore"}))
    assert "nevermore-nevermore" not in repr(
        Settings.from_env({"SESSION_SECRET": SECRETS, "PAGE_PASSWORD": "nevermore-nevermore"})
    )


def test_what_container_engines_add_is_left_alone():
    """A linked service called "backend" brings variables of these names into every container."""
    environ = {
        "BACKEND_PORT": "tcp://10.0.0.1:8082",
        "BACKEND_PORT_8082_TCP": "tcp://10.0.0.1:8082",
        "BACKEND_SERVICE_HOST": "10.0.0.1",
        "PATH": "/bin",
    }
    assert Settings.from_env(environ) == Settings()
