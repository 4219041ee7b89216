Feature: A node that is not well is left, and taken again when it has proved itself
  Every node is probed on its own. One bad node changes nothing for the others.

  Background:
    Given a primary geth
    And a backup provider

  @testnet
  Scenario: A node a little behind stays in use
    Given the proxy runs
    When geth falls 5 blocks behind
    Then the pool's head is the chain's
    And geth is found up, and never unusable, for 400 ms

  @testnet
  Scenario: A node beyond the limit is left, and taken again when it has caught up
    Given the proxy runs
    And clients call without pause
    When geth falls 9 blocks behind
    Then geth is found lagging
    And calls go to provider
    When geth is well again
    Then geth is found up
    And calls go to geth
    And every call was answered

  Scenario Outline: A node that stands still while the chain moves is left: a block every <pace> ms, watched to block <seen>
    Given a block every <pace> ms
    And the proxy runs
    Then no client is shown a lower block than before until the chain is at <seen>
    Given clients call without pause
    When geth stops following the chain
    Then geth is found stalled
    And calls go to provider
    When geth is well again
    Then calls go to geth
    And every call was answered

    Examples:
      | pace | seen |
      | 250  | 10   |
      | 150  | 20   |
      | 400  | 16   |

  Scenario Outline: A node that <fails> is left without one failed call, and taken again
    Given the proxy runs
    And clients call without pause
    When geth <fails>
    Then geth is found <verdict>
    And calls go to provider
    When geth is well again
    Then geth is found up
    And calls go to geth
    And every call was answered

    @testnet
    Examples: On every network
      | fails                        | verdict     |
      | goes down                    | down        |
      | hangs                        | down        |

    Examples: Of pretend nodes
      | fails                        | verdict     |
      | answers with garbage         | down        |
      | answers with HTTP 500        | down        |
      | answers with HTTP 429        | resting     |
      | starts to sync               | syncing     |
      | breaks off in the middle of its answers | down |

  Scenario Outline: The reason is told of a node that <fails>
    Given the proxy runs
    When geth <fails>
    Then geth is found down: "<reason>"
    When geth is well again
    Then geth is found up

    @testnet
    Examples: On every network
      | fails                 | reason                  |
      | goes down             | unreachable             |
      | hangs                 | does not answer in time |

    Examples: Of pretend nodes
      | fails                 | reason                  |
      | answers with HTTP 500 | answers with errors     |
      | answers with garbage  | answers with errors     |

  Scenario: A hanging node delays nobody else's probes
    Given the settings:
      | health.timeout | "3s" |
    And the proxy runs
    When geth hangs
    Then provider goes on being probed, 10 times, never more than 1000 ms apart

  Scenario: A node that comes back as one of another chain is never used
    Given a primary besu
    And the proxy runs
    When geth goes down
    Then geth is found down
    When geth returns as a node of chain 5
    Then geth is found wrong_chain
    And calls stay with besu for 300 ms
    When geth goes down
    Then geth is found down: "unreachable"
    When geth is well again
    Then calls go to geth

  Scenario: A node has to prove itself, longer each time that it flaps
    Given the settings:
      | health.interval | "30ms" |
    And the proxy runs
    When geth goes down
    Then geth needs 2 good probes to return
    When geth is well again
    Then geth is up again after no fewer than 2 good probes
    When geth goes down
    Then geth needs 4 good probes to return
    When geth is well again
    Then geth is up again after no fewer than 4 good probes
    When geth goes down
    Then geth needs 8 good probes to return
    When geth is well again
    Then geth is up again after no fewer than 8 good probes
    And calls go to geth

  Scenario: When no node is usable, the least bad one that answers is used, and said to be
    Given a primary besu
    And the proxy runs
    And clients call without pause
    When provider goes down
    And besu starts to sync
    And geth starts to sync
    Then the status says that the pool is degraded
    And calls go to geth
    When geth goes down
    Then calls go to besu
    And the status says that the pool is degraded
    When provider is well again
    Then calls go to provider
    And the status says that the pool is no longer degraded
    And every call was answered

  Scenario: A failed probe is believed sooner from traffic than from the clock
    Given the settings:
      | health.interval | "1h" |
    And the proxy runs
    And clients call without pause
    When geth goes down
    Then calls go to provider
    And geth is found down: "unreachable"
    And every call was answered within 1500 ms
