"""Who asks for how much, and how they are served: cuts by API key's name and by model, as the gateway counts them."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from .parts import Query, board, graph, quantiles, rows

_W = 'tenant=~"$tenant", model_name=~"$model"'
_RATE = "[$__rate_interval]"


def tenants() -> dashboard.Dashboard:
    """The dashboard of tenants; API keys have their names in the file of keys."""
    made = board(
        "triune-tenants", "Triune: tenants", "Requests, tokens and latencies by the name of API keys, and by model.",
        {
            "tenant": "label_values(triune_openai_tenant_requests_total, tenant)",
            "model": "label_values(triune_openai_tenant_requests_total, model_name)",
        },
    )  # fmt: skip
    requests, tokens = "triune_openai_tenant_requests_total", "triune_openai_tenant_tokens_total"

    def rate(metric: str, by: str, more: str = "") -> str:
        return f"sum by ({by}) (rate({metric}{{{_W}{more}}}{_RATE}))"

    failing = rate(requests, "tenant", ', status=~"5.."')
    every = rate(requests, "tenant")
    prompted, found, generated = (rate(tokens, "tenant", f', kind="{kind}"') for kind in ("prompt", "cached", "completion"))
    return rows(made, {
        "By tenant": [
            graph("Requests", "", "reqps", [Query(every, "{{tenant}}")], stacked=True),
            graph("Requests by status", "", "reqps", [Query(rate(requests, "tenant, status"), "{{tenant}} {{status}}")]),
            graph("Failing", "Share of a tenant's requests answered with 5xx.", "percentunit",
                  [Query(f"({failing} or 0 * {every}) / {every}", "{{tenant}}")]),
            graph("Tokens generated", "", "short", [Query(generated, "{{tenant}}")], stacked=True),
            graph("Prompt tokens", "", "short", [Query(prompted, "{{tenant}}")], stacked=True),
            graph("Prefix hits", "Share of a tenant's prompt tokens that were found computed.", "percentunit",
                  [Query(f"{found} / {prompted}", "{{tenant}}")]),
            graph("First piece of an answer", "Seconds, as clients see them.", "s",
                  quantiles("triune_openai_tenant_first_chunk_seconds", "tenant", _W), width=12),
            graph("Whole answer", "Seconds.", "s", quantiles("triune_openai_tenant_request_seconds", "tenant", _W), width=12),
        ],
        "By model": [
            graph("Requests by model", "", "reqps", [Query(rate(requests, "model_name"), "{{model_name}}")], stacked=True),
            graph("Tokens by model", "", "short", [Query(rate(tokens, "model_name, kind"), "{{model_name}} {{kind}}")]),
            graph("First piece by model", "Seconds.", "s",
                  quantiles("triune_openai_tenant_first_chunk_seconds", "model_name", _W)),
        ],
    })  # fmt: skip
