"""The releases that tasks are made of by default, each with the hash of its source archive; a package serves one split."""

PACKAGES: dict[str, list[str]] = {
    "train": [
        "boltons==26.2.0#d39cfd15c1a1c3bd4d705c82252fa9edb8e4f5e8cc039f8e39afac7b1b47e92c",
        "toolz==1.2.0#9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490",
        "cachetools==8.0.2#30ac523adfc118b51d2b2e7bad8a0ddb31370dfe2700c7f10ca224f36ccf81e0",
        "tabulate==0.10.0#e2cfde8f79420f6deeffdeda9aaec3b6bc5abce947655d17ac662b126e48a60d",
        "semver==3.1.2#bea193552413194252d33ff26ce0962b76669bd1c6fb17e8e203ac37f072feaf",
        "voluptuous==0.16.0#006535e22fed944aec17bef6e8725472476194743c87bd233e912eb463f8ff05",
        "isodate==0.7.2#4cd1aa0f43ca76f4a6c6c0292a85f40b35ec2e43e315b59f06e6d32171a953e6",
        "sqlparse==0.6.1#ca722573f848ff2d30e40ea30f53a104b7dea7635ea9285891263eb2c58fb6e7",
        "parse==1.9.1#a9924452e369f56f0223ebb2081183f59dab71066b9cb8a3b0e441e89d29e1f9",
    ],
    "validation": [
        "webcolors==25.10.0#62abae86504f66d0f6364c2a8520de4a0c47b80c03fc3a5f1815fedbef7c19bf",
        "schema==0.7.8#e86cc08edd6fe6e2522648f4e47e3a31920a76e82cce8937535422e310862ab5",
    ],
    "test": [
        "xmltodict==1.0.4#6d94c9f834dd9e44514162799d344d815a3a4faec913717a9ecbfa5be1bb8e61",
        "inflection==0.5.1#1a29730d366e996aaacffb2f1f1cb9593dc38e2ddd30c91250c6dde09ea9b417",
        "uritemplate==4.2.0#480c2ed180878955863323eea31b0ede668795de182617fef9c6ca09e6ec9d0e",
        "idna==3.9#e5c5dafde284f26e9e0f28f6ea2d6400abd5ca099864a67f576f3981c6476124",
    ],
}
