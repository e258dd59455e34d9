"""Code that was moved or renamed without a change of what it does counts as it did before.

Content keys hold hashes of code, and fits and samples are kept under them. Where a file is written anew and means the
same, a row here gives the hash that it is known by. A test holds that each row is of the file as it stands: whoever
changes what such a file does takes its row out, and fits are made again by `ci/nano_fits.py`.
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
        "ccff0ce61681043556ebe19a0f097fd4c0fface38ffd7fbc000d3064f38db8d4",
    ): [
        (
            "dlbench/fit/calibration.py",
            "ad8cdefc822b6be897a25dcf33cd7700a003f7f959d34e09c95957a9b1621f05",
        )
    ],
    (
        "dlbench/fit/open_loop.py",
        "1df9b8a3fbfc30e912c76c6f8abf8e2a30d3841f7a101aaa6b79c1c3d08ec463",
    ): [
        (
            "dlbench/fit/trace.py",
            "2b3cffed8e7ae33c283c457f7912fadaa5624506c76579465426ffaba4ace13e",
        )
    ],
    (
        "dlbench/fit/probe.py",
        "c5dd815920bd85d86f2b94c6f5778a7307d598622a3b62e0ff76dfe2bdc18dd0",
    ): [
        (
            "dlbench/fit/probe.py",
            "21d36249adc4885b4348c28d233f9319a63f18c354030510e5e9e6261390dac6",
        )
    ],
    (
        "dlbench/fit/router_training.py",
        "015c8e800d1f2c77810ff0dac2eb7bfae4559aba94c6239fdb005dfce777809e",
    ): [
        (
            "dlbench/fit/soft.py",
            "69e061830d4bb264940f470f383c51f4b7beb50698ee9e4224fcafb963a5c698",
        )
    ],
    (
        "dlbench/fit/tune.py",
        "dd14db8366478bd9fead91ba32f294d10c70067db2624e2be6306d2f33e527ea",
    ): [
        (
            "dlbench/fit/tune.py",
            "795eb7496bb9879a5834cd9b057a8d107be8e7ca6b664c7520ced972fdbacc62",
        )
    ],
    (
        "dlbench/method/base.py",
        "46683b05164d4b21fad48afd4af13d4e3d51bb41c7d77e897bf7fa973b1f2d3e",
    ): [
        (
            "dlbench/method/base.py",
            "62803427bf26edf6121875a595704d9ea47d9c8830e440ff38a34b3d85a22406",
        )
    ],
    (
        "dlbench/method/exits.py",
        "e4fbe02f6646cb7a15004f56915b5930dcf1b374bf52c85b3aeafe932ad2d720",
    ): [
        (
            "dlbench/method/exits.py",
            "032b4cdc9daedd4fcd4a3db17fb8549c019ef186ee9f085e2f3b4224bbec249b",
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
        "ef593c1d8680e4a2e5631c7ed7451113db8689bd0a11bfb34e363af616df4ef9",
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
