"""How requests are doing: traffic, errors, latencies, queue, KV cache."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from .parts import Query, board, graph, number, quantiles, rows

_M = 'model_name=~"$model", instance=~"$instance"'
_GATEWAY = 'job="triune-openai"'
_RATE = "[$__rate_interval]"


def _by_model(metric: str, where: str = "") -> str:
    return f"sum by (model_name) (rate({metric}{{{_M}{where}}}{_RATE}))"


def serving() -> dashboard.Dashboard:
    """The dashboard to begin with."""
    made = board(
        "triune-serving", "Triune: serving", "Traffic, errors, latencies, queue and KV cache of Triune's servers.",
        {
            "model": "label_values(vllm:num_requests_running, model_name)",
            "instance": "label_values(vllm:num_requests_running, instance)",
        },
    )  # fmt: skip
    answered = _by_model("vllm:request_success_total")
    errors = f'sum(rate(triune_openai_requests_total{{{_GATEWAY}, status=~"5.."}}{_RATE}))'
    in_time = f'sum(rate(vllm:time_to_first_token_seconds_bucket{{{_M}, le=~"2|2[.]0"}}{_RATE}))'
    return rows(made, {
        "Now": [
            number("Servers up", "Servers that answer Prometheus.", "short", 'sum(up{job="triune"})'),
            number("Answers/s", "Requests that end, by all protocols.", "reqps", f"sum({answered})"),
            number("Failing", "Share of the gateway's requests answered with 5xx.", "percentunit",
                   f"({errors} or vector(0)) / sum(rate(triune_openai_requests_total{{{_GATEWAY}}}{_RATE}))"),
            number("First token in 2 s", "Share of first tokens within 2 s of their request. Promised: 99%.", "percentunit",
                   f"{in_time} / sum(rate(vllm:time_to_first_token_seconds_count{{{_M}}}{_RATE}))"),
            number("Tokens/s", "Tokens generated.", "short", f"sum({_by_model('vllm:generation_tokens_total')})"),
            number("Waiting", "Requests that wait for a slot.", "short", f"sum(vllm:num_requests_waiting{{{_M}}})"),
        ],
        "Traffic and errors": [
            graph("Requests to the API by status", "499: the client left before its answer was whole.", "reqps",
                  [Query(f"sum by (status) (rate(triune_openai_requests_total{{{_GATEWAY}}}{_RATE}))", "{{status}}")],
                  stacked=True),
            graph("Requests to the API by endpoint", "Of the OpenAI-compatible API.", "reqps",
                  [Query(f"sum by (endpoint) (rate(triune_openai_requests_total{{{_GATEWAY}}}{_RATE}))", "{{endpoint}}")],
                  stacked=True),
            graph("Answers by how they end", "By all protocols. abort: the client left, or a deadline; error: the engine.",
                  "reqps", [Query(f"sum by (model_name, finished_reason) (rate(vllm:request_success_total{{{_M}}}{_RATE}))",
                                  "{{model_name}} {{finished_reason}}")], stacked=True),
            graph("Tokens computed and generated", "Prompt tokens that were found in the KV cache are not computed.", "short",
                  [Query(_by_model("vllm:prompt_tokens_total"), "prompt {{model_name}}"),
                   Query(_by_model("vllm:generation_tokens_total"), "generated {{model_name}}")]),
            graph("Answers under way", "At the gateway, streamed and whole.", "short",
                  [Query(f"sum by (stream) (triune_openai_open_answers{{{_GATEWAY}}})", "stream {{stream}}")]),
            graph("Whole answer", "Seconds from a request's arrival to its end.", "s",
                  quantiles("vllm:e2e_request_latency_seconds", "model_name", _M)),
        ],
        "First token": [
            graph("First token", "Seconds from arrival to the first token. Promised: 99% within 2 s.", "s",
                  quantiles("vllm:time_to_first_token_seconds", "model_name", _M)),
            graph("First piece at the gateway", "As clients see it. A dot is a request with its trace.", "s",
                  quantiles("triune_openai_first_chunk_seconds", "job", _GATEWAY, exemplars=True)),
            graph("Budget burnt", "Share of late first tokens; alarm where two windows are over 14.4% (fast) or 6% (slow).",
                  "percentunit", [Query(f'triune:first_token_late:ratio_rate{window}{{model_name=~"$model"}}',
                                        f"{window} {{{{model_name}}}}") for window in ("5m", "30m", "1h", "6h")]),
            graph("Prompt", "Seconds from a slot to the first token: computing the prompt.", "s",
                  quantiles("vllm:request_prefill_time_seconds", "model_name", _M), width=24),
        ],
        "Time between tokens": [
            graph("Between tokens", "Seconds from each token of an answer to its next.", "s",
                  quantiles("vllm:inter_token_latency_seconds", "model_name", _M)),
            graph("Mean of an answer", "Seconds between tokens, the mean of each request.", "s",
                  quantiles("vllm:time_per_output_token_seconds", "model_name", _M)),
            graph("From the first token to the last", "Seconds.", "s",
                  quantiles("vllm:request_decode_time_seconds", "model_name", _M)),
        ],
        "Queue": [
            graph("Running and waiting", "Requests with a slot, requests without, and slots in all.", "short",
                  [Query(f"sum by (model_name) (vllm:num_requests_running{{{_M}}})", "running {{model_name}}"),
                   Query(f"sum by (model_name) (vllm:num_requests_waiting{{{_M}}})", "waiting {{model_name}}"),
                   Query(f'sum by (model_name) (nv_trt_llm_request_metrics{{{_M}, request_type="max"}})',
                         "slots {{model_name}}")]),
            graph("Time in the queue", "Seconds from arrival to a slot.", "s",
                  quantiles("vllm:request_queue_time_seconds", "model_name", _M)),
            graph("Refused", "overloaded: the queue was full; invalid: a request that no engine could serve.", "reqps",
                  [Query(f"sum by (model_name, reason) (rate(triune_requests_refused_total{{{_M}}}{_RATE}))",
                         "{{model_name}} {{reason}}")]),
        ],
        "KV cache, slots and prefixes": [
            graph("KV cache in use", "Share of its tokens.", "percentunit",
                  [Query(f"vllm:kv_cache_usage_perc{{{_M}}}", "{{model_name}} {{instance}}")]),
            graph("Slots or blocks", "Those that somebody holds, and all.", "short",
                  [Query(f'sum by (model_name, kv_cache_block_type) (nv_trt_llm_kv_cache_block_metrics{{{_M}, '
                         'kv_cache_block_type=~"used|max"})', "{{kv_cache_block_type}} {{model_name}}")]),
            graph("KV cache in bytes", "Memory that holds tokens; slots take it as they grow.", "bytes",
                  [Query(f'sum by (model_name, type) (triune_kv_cache_bytes{{{_M}, type=~"used|max"}})',
                         "{{type}} {{model_name}}")]),
            graph("Prefix hits", "Share of prompt tokens that were found computed.", "percentunit",
                  [Query(f"{_by_model('vllm:prefix_cache_hits_total')} / {_by_model('vllm:prefix_cache_queries_total')}",
                         "{{model_name}}")]),
            graph("Prompt tokens looked up and found", "", "short",
                  [Query(_by_model("vllm:prefix_cache_queries_total"), "looked up {{model_name}}"),
                   Query(_by_model("vllm:prefix_cache_hits_total"), "found {{model_name}}")]),
            graph("Drafts", "Tokens guessed ahead, and those that were right; 0 where the engine checks none.", "short",
                  [Query(_by_model("vllm:spec_decode_num_draft_tokens_total"), "guessed {{model_name}}"),
                   Query(_by_model("vllm:spec_decode_num_accepted_tokens_total"), "right {{model_name}}")]),
        ],
        "Aborts": [
            graph("Aborted", "cancelled: the client left or asked for it; deadline: its time was over; error: the engine.",
                  "reqps", [Query(f"sum by (model_name, reason) (rate(triune_requests_aborted_total{{{_M}}}{_RATE}))",
                                  "{{model_name}} {{reason}}")], width=12),
            graph("From abort to a free slot", "Seconds. What takes long keeps others waiting.", "s",
                  quantiles("triune_abort_to_free_seconds", "model_name", _M), width=12),
        ],
    })  # fmt: skip
