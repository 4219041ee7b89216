# syntax=docker/dockerfile:1

# The builder's Debian release is the runtime's: a binary linked against a newer glibc would not start there.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# With the export of spans: an image cannot be built anew for a setting, and without `[tracing]` it costs a comparison.
# Dependencies and earlier builds live in cache mounts, which are not part of any layer: hence the copy in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --features otlp --bin steadfast \
    && cp target/release/steadfast /steadfast \
    && mkdir /outbox

# No shell and no package manager; the `nonroot` user (65532); system certificates for nodes behind https.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /steadfast /steadfast
COPY LICENSE-APACHE LICENSE-MIT /licenses/
# An empty folder for the outbox, which the user may write. A new volume that is mounted there gets its owner. A container without a
# mount there has a volume without a name, which a next container does not find: give the volume a name.
COPY --from=build --chown=65532:65532 /outbox /var/lib/steadfast
VOLUME ["/var/lib/steadfast"]
USER nonroot
# Clients; and the admin listener, which is on loopback unless `--admin-listen` or the configuration says otherwise.
EXPOSE 8545 9545
# Whether the process is alive: nodes that are down are no reason to restart it. It asks the admin listener at its default address; if
# that is elsewhere, set STEADFAST_ADMIN to it. Who balances traffic asks /health on the client port.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/steadfast", "status", "--live"]
ENTRYPOINT ["/steadfast"]
# Nodes come as flags (`docker run … run --listen 0.0.0.0:8545 --el URL`) or in the mounted file.
CMD ["run", "--config", "/etc/steadfast/steadfast.toml", "--listen", "0.0.0.0:8545"]
