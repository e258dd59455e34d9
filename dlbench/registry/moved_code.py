"""Code that was moved or renamed without a change of what it does counts as it did before.

Content keys hold hashes of code, and fits and samples are kept under them. Where a file is written anew and means the
same, a row here gives the hash that it is known by. A test holds that each row is of the file as it stands: whoever
changes what such a file does takes its row out, and fits are made again by `ci/nano_fits.py`.
"""

Pair = tuple[str, str]

MOVED: dict[Pair, list[Pair]] = {
    (
        "dlbench/data/scoring/words.py",
        "23de890a779e42378ec70c877100be60a59ef09e8ff3e7f15b40825cd32038db",
    ): [
        (
            "dlbench/words.py",
            "23de890a779e42378ec70c877100be60a59ef09e8ff3e7f15b40825cd32038db",
        )
    ],
    (
        "dlbench/fit/artifacts.py",
        "a7b602c5f652c6c4256e8801db0aa3c45071b5a77df9b3b5e391e1316ab3b07c",
    ): [
        (
            "dlbench/fit/artifacts.py",
            "43c2a8d657d762e35104ffe29fd74e1b7915eab051a03a25c7a6d61b02f5c369",
        )
    ],
    (
        "dlbench/fit/calibration.py",
        "3baf321833d76aa783f2321128bb07e291b8ae5adc8f46ce2da528416cb673c2",
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
        "39a1fd074d146b97c8077af69508c189ba7c3f54739a4a82f4023c7cc98a203d",
    ): [
        (
            "dlbench/fit/probe.py",
            "21d36249adc4885b4348c28d233f9319a63f18c354030510e5e9e6261390dac6",
        )
    ],
    (
        "dlbench/fit/router_training.py",
        "596baa66644156af59f60962ce7e8de7600a6055e6ba47a07d144e95b2eecd7f",
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
        "275f6d8e0d1cf88c16ec18fda05f6604887823a3cff3cd03d9c8280dddfd1473",
    ): [
        (
            "dlbench/teacher/teacher.py",
            "91cce9e4aa4a628077b673c28b4fa2a6bca7c40a29517fd47496c536af90cc65",
        )
    ],
    (
        "dlbench/tasks/metrics.py",
        "439d74e687e44e070d8b5c96914eade3f2896403abb5a86f1761f92689dc7e95",
    ): [
        (
            "dlbench/tasks/metrics.py",
            "9a6c210037c6b369253198a627b1fe518e97396b858dddb186c7ecea1e250aec",
        )
    ],
}
"""Label and hash of a file as it stands → those that count: none where another file of the table stands for it too."""
