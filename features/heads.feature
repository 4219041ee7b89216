Feature: A single node's word about the head is not the truth
  The pool's head is the one that the nodes together make credible. A liar cannot make an honest node unusable.

  @testnet
  Scenario: Nodes that agree
    Given a primary geth
    And a primary besu
    And a backup provider
    And the proxy runs
    When 3 blocks are mined, one every 100 ms
    Then the pool's head is the chain's
    And status and metrics agree

  @testnet
  Scenario: A node that is ahead of two others makes none of them lag
    Given a primary geth
    And a primary besu
    And a backup provider
    And the proxy runs
    When besu falls 9 blocks behind
    Then besu is found lagging
    When provider falls 9 blocks behind
    Then besu is found up
    And provider is found up
    When besu is well again
    Then provider is found lagging
    And the pool's head is the chain's
    When provider is well again
    Then provider is found up

  Scenario Outline: A liar among three, <blocks> blocks too high, evicts nobody
    Given a primary geth
    And a primary besu
    And a backup provider
    And the proxy runs
    And clients call without pause
    When provider claims a head <blocks> blocks too high
    Then geth is found up, and never unusable, for 700 ms
    And besu is found up
    When provider is well again
    Then provider is found up
    And the pool's head is the chain's
    And every call was answered by geth

    Examples:
      | blocks  |
      | 6       |
      | 500     |
      | 1000000 |

  Scenario Outline: A liar among two, <blocks> blocks too high, takes no call from the honest primary
    Given a primary geth
    And a backup provider
    And a block every 250 ms
    And the proxy runs
    And clients call without pause
    When provider claims a head <blocks> blocks too high
    Then geth is found up, and never unusable, for 2500 ms
    When provider is well again
    Then provider is found up
    And the pool's head is the chain's
    And every call was answered by geth

    Examples:
      | blocks     |
      | 6          |
      | 500        |
      | 5000       |
      | 1000000000 |

  Scenario Outline: A liar among two that were watched for a while, <blocks> blocks too high, takes no call either
    Given a primary geth
    And a backup provider
    And a block every 250 ms
    And the proxy runs
    And clients call without pause
    Then no client is shown a lower block than before until the chain is at 18
    When provider claims a head <blocks> blocks too high
    Then geth is found up, and never unusable, for 2500 ms
    When provider is well again
    Then provider is found up
    And the pool's head is the chain's
    And every call was answered by geth

    Examples:
      | blocks     |
      | 6          |
      | 20         |
      | 500        |
      | 1000000000 |

  Scenario: A liar that was found out, and that goes down, leaves nothing behind
    Given a primary geth
    And a backup provider
    And a block every 250 ms
    And the proxy runs
    And clients call without pause
    When provider claims a head 1000000 blocks too high
    Then provider is found suspect
    When provider goes down
    Then provider is found down
    And the pool's head is the chain's
    And geth is found up, and never unusable, for 700 ms
    And every call was answered by geth

  Scenario: A lying primary is left for the honest one
    Given a primary besu
    And a primary geth
    And a block every 250 ms
    And the proxy runs
    And clients call without pause
    When besu claims a head 1000000 blocks too high
    Then besu is found suspect
    And calls go to geth
    When besu is well again
    Then calls go to besu
    And every call was answered
