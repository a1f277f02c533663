"""The description tells what the gate does."""

from fastapi.testclient import TestClient


def test_rights(client: TestClient) -> None:
    """Every call that needs a right says which, and how it is refused; health needs none."""
    document = client.get("/openapi.json").json()
    calls = {(method, path): call for path, item in document["paths"].items() for method, call in item.items()}
    assert calls["post", "/events"]["security"] == [{"key": ["write"]}]
    assert calls["get", "/events"]["security"] == [{"key": ["read"]}]
    assert calls["post", "/api/v1/marks"]["security"] == [{"key": ["change"]}]
    assert "security" not in calls["get", "/health"]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for call in calls.values():
        if "security" in call:
            assert {"401", "403", "429", "503"} <= set(call["responses"])
