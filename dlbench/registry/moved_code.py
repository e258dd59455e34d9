"""Code that was moved or renamed without a change of what it does counts as it did before.

Content keys hold hashes of code, and fits and samples are kept under them. Where a file is written anew and means the
same, a row here gives the hash that it is known by. A test holds that each row is of the file as it stands: whoever
changes what such a file does takes its row out, and fits are made again by `ci/nano-fits`.
"""

Pair = tuple[str, str]

MOVED: dict[Pair, list[Pair]] = {
    (
        "dlbench/data/scoring/metric_registry.py",
        "5a4edba2f54b3a3350006279c9b4705b5bf54abd70e015d2979817f158c59f69",
    ): [],
    (
        "dlbench/data/scoring/words.py",
        "46da776ab33d53493c917bd7d7ac3f206ab5ce908c150bb6def4d76550db5f66",
    ): [
        (
            "dlbench/words.py",
            "23de890a779e42378ec70c877100be60a59ef09e8ff3e7f15b40825cd32038db",
        )
    ],
    (
        "dlbench/fit/__init__.py",
        "6526957b3ce4d2c046d2e782be8ec22fc500872177f077a3f3e11e0ea086638b",
    ): [
        (
            "dlbench/fit/__init__.py",
            "614556a603b4d5ca163cb8862468a8d62deb72e1249344bf4df7ffabe6dd0a72",
        )
    ],
    (
        "dlbench/fit/artifacts.py",
        "2db29f56608f099bbe4565dc90f131efacf6d523f2e1248c8a1b6bf2fd12c1a0",
    ): [
        (
            "dlbench/fit/artifacts.py",
            "43c2a8d657d762e35104ffe29fd74e1b7915eab051a03a25c7a6d61b02f5c369",
        )
    ],
    (
        "dlbench/fit/calibration.py",
        "db539d1babf855eb9fe3c5e5b535e506a8f35a5022c7175deff27fa1fa4a3a6b",
    ): [
        (
            "dlbench/fit/calibration.py",
            "ad8cdefc822b6be897a25dcf33cd7700a003f7f959d34e09c95957a9b1621f05",
        )
    ],
    (
        "dlbench/fit/open_loop.py",
        "73f5af80ed06bb2e1090a0518f3af6b3ac72ab654676501549735c7255894e72",
    ): [
        (
            "dlbench/fit/trace.py",
            "2b3cffed8e7ae33c283c457f7912fadaa5624506c76579465426ffaba4ace13e",
        )
    ],
    (
        "dlbench/fit/probe.py",
        "a7d05197f30b0626939d22f5da9e96f810196abb59b3cd4d29c3b35f9c1d1ed8",
    ): [
        (
            "dlbench/fit/probe.py",
            "21d36249adc4885b4348c28d233f9319a63f18c354030510e5e9e6261390dac6",
        )
    ],
    (
        "dlbench/fit/references.py",
        "744ade098ff50d21db3b5f331a63c510e94aa98e5f5496dbbd89f01de4c0e07e",
    ): [],
    (
        "dlbench/fit/router_training.py",
        "22f7ffb6b47b85692ecd8476840db4d443647ae14a5170bb0ed40f6c5133f986",
    ): [
        (
            "dlbench/fit/soft.py",
            "69e061830d4bb264940f470f383c51f4b7beb50698ee9e4224fcafb963a5c698",
        )
    ],
    (
        "dlbench/fit/tune.py",
        "0a1dd16d8fbe61bf2b41c415d3fda3c4948a3b7665ac0cc63e7d34321c4bb0b9",
    ): [
        (
            "dlbench/fit/tune.py",
            "795eb7496bb9879a5834cd9b057a8d107be8e7ca6b664c7520ced972fdbacc62",
        )
    ],
    (
        "dlbench/method/__init__.py",
        "bcdf1a638218192bc59395913ad9f1699a17cf118588f0bbc3c613e1fd4b21ac",
    ): [
        (
            "dlbench/method/__init__.py",
            "5f994d4e310dd52a4c35e7e19ef6e2f8e821f5654d3b525e02dbb3649132fb59",
        )
    ],
    (
        "dlbench/method/actions.py",
        "08d78c03e7fde54fa95ca7924c1d6446a52a8cbed66ba4bd11225d6fb7f26bba",
    ): [
        (
            "dlbench/method/probe.py",
            "a807a7d1afb0ab31b97cba52cc53981c13beeeb913589a73f1fa97afcc976a9f",
        )
    ],
    (
        "dlbench/method/base.py",
        "dd81d8de03a6e2c85e0df3495b82a9749892bb3f641ef9a404882aa7c17dcdd5",
    ): [
        (
            "dlbench/method/base.py",
            "62803427bf26edf6121875a595704d9ea47d9c8830e440ff38a34b3d85a22406",
        )
    ],
    (
        "dlbench/method/draft.py",
        "87b2812789b7dae1399fbb676d4750cbeb90516cc4e6f244a7d2700146895487",
    ): [
        (
            "dlbench/method/draft.py",
            "56e20b99a0cc35687ae6d67f89b6fb196288ce16c5d84c8ec067d547d5b67e88",
        )
    ],
    (
        "dlbench/method/exits.py",
        "50829aa598528a2b26fa9a6aad20ddd64bac6b52f20e4d7a7c14d025e559704f",
    ): [
        (
            "dlbench/method/exits.py",
            "032b4cdc9daedd4fcd4a3db17fb8549c019ef186ee9f085e2f3b4224bbec249b",
        )
    ],
    (
        "dlbench/method/oracle.py",
        "184b5b1f739cdb1a7abb812446b32b36c4be1ec239eef9d9d00fe993d21e48b3",
    ): [
        (
            "dlbench/method/oracle.py",
            "4b74d6872df9df5410b94bd4cf02e8392640f5193f7d90f8d94a8b5f2b5e3283",
        )
    ],
    (
        "dlbench/method/router.py",
        "078993aa7eb56cb2660a02a33829fde848bf65fd733d5f22fb1a3bf4c9dc1169",
    ): [
        (
            "dlbench/method/router.py",
            "e027e4eece8b156e2dc1e25f7714a86845183149339f254e01babf6462026b99",
        )
    ],
    (
        "dlbench/method/static.py",
        "ca6f89b1e546f9e4f2086e455a7f6711bdd5bf58361d281db9cbd7300791d32d",
    ): [
        (
            "dlbench/method/static.py",
            "1ba81b3afe0fa93ef843f1cedca46d6e3fc8d51bbf01170160e675344c026e07",
        )
    ],
    (
        "dlbench/methods/calm_oracle.py",
        "3f5a997786ad5a9c4132a6d914347ee48653b3e3cfbcc76a642b510ed16d472d",
    ): [
        (
            "dlbench/methods/calm_oracle.py",
            "aed91878b69a3087f4729781486bc693ee77b9f2cb74393e230a4bb9b309f486",
        )
    ],
    (
        "dlbench/prompting/teacher_forcing/teacher_forcing.py",
        "8574c4a5cc59c7564d6941d7a85abfe0d258a98f4c32f2a77dc958d3ddd6e48c",
    ): [
        (
            "dlbench/teacher/teacher.py",
            "91cce9e4aa4a628077b673c28b4fa2a6bca7c40a29517fd47496c536af90cc65",
        )
    ],
    (
        "dlbench/tasks/metrics.py",
        "5c467cf4cf1800b061eafb3ced984822417e34ab87da534e60e2640c34d76e9f",
    ): [
        (
            "dlbench/tasks/metrics.py",
            "9a6c210037c6b369253198a627b1fe518e97396b858dddb186c7ecea1e250aec",
        )
    ],
}
"""Label and hash of a file as it stands → those that count: none where another file of the table stands for it too."""
