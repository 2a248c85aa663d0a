"""What serving takes of machines: GPUs, memory, disks, and how often something had to be started again.

Panels whose title begins with GPU or Certificate have data only where there is a GPU, or a certificate.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from .parts import Query, board, graph, number, rows

_I = 'instance=~"$instance"'


def machine() -> dashboard.Dashboard:
    """The dashboard of machines."""
    made = board(
        "triune-machine", "Triune: machines", "GPUs, memory, disks and restarts of the machines that serve.",
        {"instance": "label_values(up, instance)"},
    )  # fmt: skip
    gpu = "GPU {{gpu}}{{gpu_uuid}} {{instance}}"
    return rows(made, {
        "GPUs": [
            graph("GPU memory", "Share in use; alarm over 85%.", "percentunit",
                  [Query(f"triune:gpu_memory_used:ratio{{{_I}}}", gpu)]),
            graph("GPU use", "Share of time in which it computes, by DCGM or by Triton.", "percentunit",
                  [Query(f"DCGM_FI_DEV_GPU_UTIL{{{_I}}} / 100", gpu), Query(f"nv_gpu_utilization{{{_I}}}", gpu)]),
            graph("GPU temperature", "Degrees Celsius, by DCGM; alarm over 85.", "celsius",
                  [Query(f"DCGM_FI_DEV_GPU_TEMP{{{_I}}}", gpu)]),
            graph("GPU power", "Watts, by DCGM or by Triton.", "watt",
                  [Query(f"DCGM_FI_DEV_POWER_USAGE{{{_I}}}", gpu), Query(f"nv_gpu_power_usage{{{_I}}}", gpu)], width=12),
            graph("GPU memory in bytes", "By Triton.", "bytes",
                  [Query(f"nv_gpu_memory_used_bytes{{{_I}}}", "used " + gpu),
                   Query(f"nv_gpu_memory_total_bytes{{{_I}}}", "all " + gpu)], width=12),
        ],
        "Processes": [
            number("Starts in an hour", "How often engines were started again.", "short",
                   f"sum(changes(triune_start_time_seconds{{{_I}}}[1h]))", width=6),
            number("Engine up for", "Seconds since the youngest engine's start.", "s",
                   f"time() - max(triune_start_time_seconds{{{_I}}})", width=6),
            number("Gateway up for", "Seconds since the youngest gateway's start.", "s",
                   'time() - max(process_start_time_seconds{job="triune-openai"})', width=6),
            number("Certificate ends in", "Seconds, of the first certificate that does.", "s",
                   'min(probe_ssl_earliest_cert_expiry{job="triune-tls"} or triune_tls_not_after_seconds) - time()', width=6),
            graph("Memory of processes", "In RAM: the engine with its mapped weights, and the gateway.", "bytes",
                  [Query(f"triune_resident_memory_bytes{{{_I}}}", "engine {{model_name}} {{instance}}"),
                   Query('process_resident_memory_bytes{job="triune-openai"}', "gateway {{instance}}")]),
            graph("Memory of the machine", "In use and all, as Triton sees it.", "bytes",
                  [Query(f"nv_cpu_memory_used_bytes{{{_I}}}", "used {{instance}}"),
                   Query(f"nv_cpu_memory_total_bytes{{{_I}}}", "all {{instance}}")]),
            graph("Processors", "Share of the machine's that are busy, and cores that the gateway takes.", "percentunit",
                  [Query(f"nv_cpu_utilization{{{_I}}}", "machine {{instance}}"),
                   Query('rate(process_cpu_seconds_total{job="triune-openai"}[$__rate_interval])', "gateway {{instance}}")]),
            graph("Disks", "Share that is left; alarm under 10%. shm: where Triton's processes talk.", "percentunit",
                  [Query(f"triune_disk_free_bytes{{{_I}}} / triune_disk_size_bytes{{{_I}}}", "{{folder}} {{instance}}")],
                  width=12),
            graph("Requests that Triton refused or failed", "By its models, with its own reasons.", "reqps",
                  [Query(f"sum by (model, reason) (rate(nv_inference_request_failure{{{_I}}}[$__rate_interval]))",
                         "{{model}} {{reason}}")], width=12),
        ],
    })  # fmt: skip
