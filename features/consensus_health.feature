Feature: A consensus node that is not well is left, and taken again when it has proved itself
  A node's word on itself counts, and the status of its health route more than the words.

  Background:
    Given a primary consensus node lighthouse
    And a backup consensus node teku

  Scenario: Healthy nodes are up, and the primary serves
    Given the proxy runs
    And clients call without pause
    Then lighthouse is found up
    And teku is found up
    And the pool's head is the chain's
    And every call was answered by lighthouse

  Scenario Outline: A node that <fails> is left without one failed request, and taken again
    Given the proxy runs
    And clients call without pause
    When lighthouse <fails>
    Then lighthouse is found <verdict>
    And calls go to teku
    When lighthouse is well again
    Then lighthouse is found up
    And calls go to lighthouse
    And every call was answered

    @testnet
    Examples: On every network
      | fails                                                    | verdict    |
      | goes down                                                | down       |

    Examples: Of pretend nodes
      | fails                                                    | verdict    |
      | hangs                                                    | down       |
      | answers everything with HTTP status 503                  | down       |
      | answers with HTTP 500                                    | down       |
      | answers with HTTP 429                                    | resting    |
      | breaks off in the middle of its answers                  | down       |
      | starts to sync                                           | syncing    |
      | turns optimistic                                         | optimistic |
      | loses its execution node                                 | el_offline |
      | falls 9 blocks behind                                    | lagging    |
      | calls itself well, but for HTTP status 206 of its health | syncing    |
      | calls itself well, but for HTTP status 503 of its health | down       |

  Scenario Outline: The reason is told of a node that <fails>
    Given the proxy runs
    When lighthouse <fails>
    Then lighthouse is found down: "<reason>"
    When lighthouse is well again
    Then lighthouse is found up

    @testnet
    Examples: On every network
      | fails                                   | reason                  |
      | goes down                               | unreachable             |

    Examples: Of pretend nodes
      | fails                                   | reason                  |
      | hangs                                   | does not answer in time |
      | answers everything with HTTP status 503 | answers with errors     |

  Scenario Outline: A node without a health route, with HTTP status <status>, is up
    Given the proxy runs
    When lighthouse calls itself well, but for HTTP status 206 of its health
    Then lighthouse is found syncing
    When lighthouse calls itself well, but for HTTP status <status> of its health
    Then lighthouse is found up
    And calls go to lighthouse

    Examples:
      | status |
      | 404    |
      | 500    |
      | 501    |

  Scenario: A hanging node delays nobody else's probes
    Given the settings:
      | health.timeout | "3s" |
    And the proxy runs
    When lighthouse hangs
    Then teku goes on being probed, 10 times, never more than 1000 ms apart

  Scenario: A node has to prove itself, longer each time that it flaps
    Given the settings:
      | health.interval | "30ms" |
    And the proxy runs
    When lighthouse goes down
    Then lighthouse needs 2 good probes to return
    When lighthouse is well again
    Then lighthouse is up again after no fewer than 2 good probes
    When lighthouse goes down
    Then lighthouse needs 4 good probes to return
    When lighthouse is well again
    Then lighthouse is up again after no fewer than 4 good probes
    And calls go to lighthouse

  Scenario: A node that comes back as one of another chain is never used
    Given a primary consensus node nimbus
    And the proxy runs
    When lighthouse goes down
    Then lighthouse is found down
    When lighthouse returns as a node of chain 5
    Then lighthouse is found wrong_chain
    And calls stay with nimbus for 300 ms

  Scenario: When no node is well, the least bad one that answers is used, and said to be
    Given the proxy runs
    And clients call without pause
    When teku turns optimistic
    And lighthouse starts to sync
    Then the status says that the pool is degraded
    And calls go to teku
    When lighthouse is well again
    Then calls go to lighthouse
    And the status says that the pool is no longer degraded
    And every call was answered
