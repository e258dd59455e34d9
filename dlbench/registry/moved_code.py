"""Code that was moved or renamed without a change of what it does counts as it did before.

Content keys hold hashes of code, and fits and samples are kept under them. Where a file is written anew and means the
same, a row here gives the hash that it is known by. A test holds that each row is of the file as it stands: whoever
changes what such a file does takes its row out, and fits are made again by `ci/shipped-fits`.
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
        "371e602e809a7754cda412dee29dddece69b2f84de6b8c0911202f5864f06ad1",
    ): [
        (
            "dlbench/fit/__init__.py",
            "614556a603b4d5ca163cb8862468a8d62deb72e1249344bf4df7ffabe6dd0a72",
        )
    ],
    (
        "dlbench/fit/artifacts.py",
        "812001d7d389775a2684d1cc4f0ddf9f1416a707796d42d8021b5a5dc9df8b7a",
    ): [
        (
            "dlbench/fit/artifacts.py",
            "43c2a8d657d762e35104ffe29fd74e1b7915eab051a03a25c7a6d61b02f5c369",
        )
    ],
    (
        "dlbench/fit/bound.py",
        "89f9276786a8b8eea348864a8023da2a46c04c74a68ac7d9f4154b88d5233f24",
    ): [],
    (
        "dlbench/fit/calibration.py",
        "f7a344023a570ec92f5ebe86e774b75e822a556a299dd909c6876fd15afdcc69",
    ): [
        (
            "dlbench/fit/calibration.py",
            "ad8cdefc822b6be897a25dcf33cd7700a003f7f959d34e09c95957a9b1621f05",
        )
    ],
    (
        "dlbench/fit/kept_prompts.py",
        "ef2d696a4fc7afbfc21917abca4d21a29b3c88a68fe86141c1603e68141e0a1d",
    ): [],
    (
        "dlbench/fit/open_loop.py",
        "6f4c81be7140be87d59c71229f83981a489b29edf57e0d8f14e3102c013ed10f",
    ): [
        (
            "dlbench/fit/trace.py",
            "2b3cffed8e7ae33c283c457f7912fadaa5624506c76579465426ffaba4ace13e",
        )
    ],
    (
        "dlbench/fit/probe.py",
        "d147f8ae5d0fe596aee8a1fe709f59caad2b02bba1dba04704a8180d17ccd41f",
    ): [
        (
            "dlbench/fit/probe.py",
            "21d36249adc4885b4348c28d233f9319a63f18c354030510e5e9e6261390dac6",
        )
    ],
    (
        "dlbench/fit/references.py",
        "0f2231400c74977709d02dbd7bc41964013570e63f109bb0593c1827cc5a3f29",
    ): [],
    (
        "dlbench/fit/router_training.py",
        "2f4a57c1061dc312d42ce4c8d6964a7311b50e341b93c875421d673fc3a0cab1",
    ): [
        (
            "dlbench/fit/soft.py",
            "69e061830d4bb264940f470f383c51f4b7beb50698ee9e4224fcafb963a5c698",
        )
    ],
    (
        "dlbench/fit/tune.py",
        "ed880863317c20ea3c0f3c2a7ecc3e76245ef3e5cd6a55c47ae481cba8f2758a",
    ): [
        (
            "dlbench/fit/tune.py",
            "795eb7496bb9879a5834cd9b057a8d107be8e7ca6b664c7520ced972fdbacc62",
        )
    ],
    (
        "dlbench/method/__init__.py",
        "a0151c7c02081a900a9be26569b0bf53b077eea20aac2f4eb51f69042683444f",
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
        "ab93d1ff6ef78ab719e34746c5b4362784fc1c5865e911393e415d9b778e2074",
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
        "b74cdf7eeb4ba4a9ba974865121332554685bb7c8d9c837721b9af3950c7845c",
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
        "dlbench/methods/calm.py",
        "d51fdd6518e8d054e448d5bf1082f370b0c7e082015eb790a15795ad1e7bbfe6",
    ): [
        (
            "dlbench/methods/calm.py",
            "3539077fb5536e354e30d474f07a6435553fba880f7d62b80b72915739cb8b6a",
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
        "dlbench/methods/hidden_router.py",
        "9b2a1d5f147d888aeba96db0481509516160e92e37347ea2c2e5dba0d4bfa562",
    ): [
        (
            "dlbench/methods/hidden_router.py",
            "adfc1a7664b428b08b1681f8add99de4adb1819d8c0ab00d6c5f211270fbd605",
        )
    ],
    (
        "dlbench/prompting/teacher_forcing/teacher_forcing.py",
        "f4e6f1947cbe93b6c56a24b6c96324800d8aba675b2d69272e97ab24748e1081",
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
