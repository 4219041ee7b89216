"""The Dockerfile keeps the rules, and each rule can be broken."""

import unittest

from dockerfile import ignored, problems, read

DOCKERFILE, DOCKERIGNORE = read()
# The volume, and the folder once more behind the volume.
VOLUME_FIRST = '''VOLUME ["/var/lib/steadfast"]
COPY --from=build --chown=65532:65532 /outbox /var/lib/steadfast
'''


class Dockerfile(unittest.TestCase):
    def test_ours_keeps_the_rules(self):
        self.assertEqual(problems(DOCKERFILE, DOCKERIGNORE), [])

    def test_base_images_may_have_digests(self):
        pinned = DOCKERFILE.replace("bookworm AS", f"bookworm@sha256:{'b' * 64} AS")
        pinned = pinned.replace(":nonroot", f":nonroot@sha256:{'c' * 64}")
        self.assertEqual(pinned.count("@sha256:"), 2)
        self.assertEqual(problems(pinned, DOCKERIGNORE), [])

    def test_each_rule_can_be_broken(self):
        for old, new, expected in [
            ("FROM rust:1.95-slim-bookworm AS", "FROM rust AS", "FROM rust: the tag must say"),
            ("cc-debian12:nonroot", "cc-debian12:latest", "the tag must say which version"),
            ("cc-debian12:nonroot", "cc-debian13:nonroot", "Debian release must be the runtime's"),
            ("rust:1.95-slim", "rust:1.94-slim", "FROM rust:1.94-slim-bookworm: Cargo.toml says 1.95"),
            ("COPY LICENSE-APACHE", "ADD LICENSE-APACHE", "ADD: use COPY"),
            ("WORKDIR /src", "WORKDIR src", "WORKDIR src: must be absolute"),
            ("cargo build --release --locked", "cargo build --release", "must be --release --locked"),
            ("cargo build --release --locked", "sudo cargo build --release --locked", "RUN: without sudo"),
            ("WORKDIR /src", "WORKDIR /src\nENV API_KEY=1", "ENV: a secret would be in the image"),
            ("LICENSE-MIT", "LICENSE-GPL", "COPY LICENSE-GPL: is not there"),
            ("--from=build", "--from=builder", "there is no such stage"),
            ("FROM gcr.io", "COPY --from=build /a /b\nFROM gcr.io", "there is no such stage before this one"),
            ("COPY . .\n", "COPY .\n", "COPY .: must say where to"),
            ("WORKDIR /src\n", "", "COPY .: must be absolute, or after a WORKDIR"),
            ("LICENSE-MIT /licenses/", "LICENSE-MIT /licenses", "COPY /licenses: several files need a folder"),
            ("/steadfast /steadfast", "/steadfast /bin/", "ENTRYPOINT /steadfast: must be copied"),
            (":nonroot", ":nonroot@sha256:12", "a digest is sha256: and 64 digits"),
            (":nonroot", f":nonroot@sha256:{'a' * 64}", "every base image must have a digest, or none"),
            ("USER nonroot", "USER root", "USER root: must not be root"),
            ("USER nonroot", "USER 0:0", "USER 0: must not be root"),
            ("USER nonroot\n", "", "USER: must be there once"),
            ("HEALTHCHECK", "#", "HEALTHCHECK: must be there once"),
            (
                'CMD ["/steadfast", "status", "--live"]',
                "CMD /steadfast status --live",
                "HEALTHCHECK: must be a JSON list",
            ),
            (
                'CMD ["/steadfast", "status"',
                'CMD ["/curl", "status"',
                "HEALTHCHECK: must call the image's program",
            ),
            ('ENTRYPOINT ["/steadfast"]', "ENTRYPOINT /steadfast", "ENTRYPOINT: must be a JSON list"),
            ("--chown=65532:65532 ", "", "the folder of the outbox must be the user's own"),
            ("/outbox /var/lib/steadfast", "/outbox /outbox", "the folder of the outbox must be the user's own"),
            ('VOLUME ["/var/lib/steadfast"]\n', "", "VOLUME: must be /var/lib/steadfast alone"),
            ('VOLUME ["/var/lib/steadfast"]', 'VOLUME ["/data"]', "VOLUME: must be /var/lib/steadfast alone"),
            ('VOLUME ["/var/lib/steadfast"]', "VOLUME /var/lib/steadfast", "VOLUME: must be /var/lib/steadfast alone"),
            ('VOLUME ["/var/lib/steadfast"]\n', VOLUME_FIRST, "VOLUME: must stand behind what fills the folder"),
            ("EXPOSE 8545 9545", "EXPOSE 8545", "EXPOSE 8545: docs/CONFIG.md says 8545 9545"),
        ]:
            with self.subTest(expected, new=new):
                self.assertIn(old, DOCKERFILE)
                found = problems(DOCKERFILE.replace(old, new), DOCKERIGNORE)
                self.assertTrue(any(expected in line for line in found), found)

    def test_each_rule_of_the_context_can_be_broken(self):
        for old, new, expected in [
            ("**/target", "", "target/debug/steadfast must be kept out"),
            ("**/target", "target", "bench/target/x must be kept out"),
            (".git\n", "", ".git/config must be kept out"),
            ("**/.env", "", ".env must be kept out"),
            ("Dockerfile", "Dockerfile\nLICENSE-*", "COPY LICENSE-MIT: .dockerignore keeps it out"),
            ("Dockerfile", "Dockerfile\nCargo.*", "Cargo.lock is needed"),
            ("Dockerfile", "Dockerfile\nsrc", "src/main.rs is needed"),
        ]:
            with self.subTest(expected):
                self.assertIn(old, DOCKERIGNORE)
                found = problems(DOCKERFILE, DOCKERIGNORE.replace(old, new))
                self.assertTrue(any(expected in line for line in found), found)

    def test_patterns_fit_as_dockers_do(self):
        for patterns, path, expected in [
            (["**/target"], "target/a/b", True),
            (["**/target"], "bench/target/a", True),
            (["target"], "bench/target/a", False),
            (["/target"], "target", True),
            (["**/*.key"], "a/b/c.key", True),
            (["*.key"], "a/c.key", False),
            (["*", "!src"], "src/main.rs", False),
            (["src", "!src/main.rs"], "src/main.rs", False),
            (["src"], "srcs/a", False),
        ]:
            with self.subTest(path, patterns=patterns):
                self.assertEqual(ignored(path, patterns), expected)
