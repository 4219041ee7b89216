Feature: The consensus side's head is the one that its nodes make credible
  Slots come by the clock, and one node's word is not the truth.

  Background:
    Given a primary consensus node lighthouse
    And a primary consensus node nimbus
    And a backup consensus node teku

  @testnet
  Scenario: Nodes that agree
    Given the proxy runs
    When 3 blocks are mined, one every 100 ms
    Then the pool's head is the chain's
    And status and metrics agree

  Scenario: A node a little behind stays in use
    Given the proxy runs
    When lighthouse falls 3 blocks behind
    Then lighthouse is known to be behind
    And the pool's head is the chain's
    And lighthouse is found up, and never unusable, for 400 ms

  Scenario: Two of three nodes are behind the clock, and the third serves
    Given the proxy runs
    When lighthouse falls 9 blocks behind
    And nimbus falls 9 blocks behind
    Then lighthouse is found lagging
    And nimbus is found lagging
    And calls go to teku
    When nimbus is well again
    Then calls go to nimbus
    And the pool's head is the chain's

  Scenario Outline: A liar, <slots> slots too high, evicts nobody
    Given the proxy runs
    And clients call without pause
    When teku claims a head <slots> blocks too high
    Then teku is found suspect
    And lighthouse is found up, and never unusable, for 700 ms
    And nimbus is found up
    When teku is well again
    Then teku is found up
    And the pool's head is the chain's
    And every call was answered by lighthouse

    Examples:
      | slots   |
      | 20      |
      | 1000000 |

  Scenario: Heads as clients see them never fall through failover and failback
    Given a block every 1000 ms
    And the settings:
      | health.interval | "50ms" |
    And the proxy runs
    When nimbus falls 2 blocks behind
    Then nimbus is known to be behind
    And no client is shown a lower block than before, 20 times
    When lighthouse goes down
    Then no client is shown a lower block than before, 20 times
    And calls go to teku
    And no client is shown a lower block than before, 130 times
    When lighthouse is well again
    Then no client is shown a lower block than before, 150 times
    And calls go to lighthouse
