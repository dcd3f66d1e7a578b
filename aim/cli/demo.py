"""``python -m aim demo``: the page."""

from __future__ import annotations

from typing import Annotated

import typer

from aim.cli.options import Backend, Cluster, Device, Dtype, Model, Replicas, settings


def demo(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on: 0.0.0.0 is all. Default: this machine alone."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Default: GRADIO_SERVER_PORT, or the first free one from 7860."
        ),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also a public address, through Gradio's servers.")
    ] = False,
    mcp: Annotated[
        bool,
        typer.Option(
            "--mcp", help="Also an MCP server, whose tools are the page's endpoints. Or AIM_MCP=1."
        ),
    ] = False,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
    replicas: Replicas = None,
    cluster: Cluster = None,
) -> None:
    """Open the page."""
    # before Gradio is imported, which reads the same environment and does not explain itself
    chosen = settings(
        model=model,
        device=device,
        dtype=dtype,
        backend=backend,
        mcp=mcp,
        replicas=replicas,
        cluster=cluster,
    )
    from aim.ui import launch

    launch(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        backend=chosen.backend,
        replicas=chosen.replicas,
        cluster=chosen.cluster,
        host=host,
        port=port,
        share=share,
        mcp=chosen.mcp,
    )
